# Configurations for other extensions are of no interest here.
