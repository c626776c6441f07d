"""Hosts: the machines on which pepper runs programs."""
