"""The lab's figures, one file each, named as the figure is: sweep files are checked by the names of these files."""
