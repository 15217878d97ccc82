"""What the module's buttons do, without Qt, Slicer or torch: the job, its messages, its time, and what was found."""
