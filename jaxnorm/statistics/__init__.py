"""Running statistics: estimators, their states, and calibration."""
