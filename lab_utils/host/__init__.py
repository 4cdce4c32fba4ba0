"""What a host must have before `lab` can do anything: packages.sh installs it, packages.py says it, packages.txt names it for both."""
