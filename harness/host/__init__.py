"""This machine: processes, ports, disks, Java."""
