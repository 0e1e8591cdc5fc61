"""Simulated measurements with exact k-space and a known truth: what a simulated scanner sends."""

from recon.simulate.scans import PROTOCOLS, REALISTIC, SimulatedScan, Snr, save, simulate
from recon.simulate.truth import Truth, nrmse

__all__ = ["PROTOCOLS", "REALISTIC", "SimulatedScan", "Snr", "Truth", "nrmse", "save", "simulate"]
