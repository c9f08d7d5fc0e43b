"""Publishes this project: the Ansible collection made of its roles, and the check that comes before a release."""
