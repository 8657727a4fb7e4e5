"""What differs between two generations: earlier ones, the live one, or one that is only planned."""
