"""The page of reproductions: the paper's claims beside what this lab measured."""
