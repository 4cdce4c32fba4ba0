from lab_utils.cli import main

main()
