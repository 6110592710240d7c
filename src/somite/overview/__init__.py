"""What lies in a folder of runs, read from their small files alone: no torch, no weights, no data. Quick enough to be asked at any time."""
