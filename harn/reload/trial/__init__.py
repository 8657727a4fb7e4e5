"""What becomes of a generation after it was adopted: probation, ramps, and the undoing of what does not prove good."""
