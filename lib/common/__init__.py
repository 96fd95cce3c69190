"""What every other package may use: errors, files, limits on what is read, processes, progress, provenance, words."""
