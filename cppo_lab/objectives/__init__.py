"""Every trust region of the field as a point in one space; needs torch alone."""
