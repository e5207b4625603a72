"""From configuration files to settings: files are read, checked against rules, and compared."""
