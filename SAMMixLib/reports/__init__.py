"""What a person looks at: the report of a scan, pictures of slices."""
