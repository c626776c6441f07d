"""Devices, their emulation and calibration."""
