"""What lies on disk, written whole and read with doubt."""
