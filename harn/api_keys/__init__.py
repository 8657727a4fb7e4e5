"""Named keys of the admin API: made, listed and revoked while the server runs, kept over restarts."""
