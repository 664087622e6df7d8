"""What SMOBF is compared with: other selection methods, the exact optimum, other fractions of the library."""
