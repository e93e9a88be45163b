"""Network parts that methods share. Needs torch and numpy only."""
