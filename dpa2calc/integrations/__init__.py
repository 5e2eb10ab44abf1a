"""One small file or folder for each program that runs these models; each imports its program when used."""
