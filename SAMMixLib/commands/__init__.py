"""One module a command: ``add_command`` declares its options, ``run`` does it and returns its figures."""
