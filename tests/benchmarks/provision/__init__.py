"""`make bench-provision`: four ways to provision Dispatch, side by side on the same lab hosts."""
