from cppo_lab.analysis.reproductions.build import main

main()
