"""What TCP and UDP listeners share: refusals, repeated errors, drops, the PROXY header."""
