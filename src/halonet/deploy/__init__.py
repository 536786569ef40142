"""Trained models in forms that other runtimes read."""

from halonet.deploy.detector import export_detector as export_detector
from halonet.deploy.exportable import ExportableDetector as ExportableDetector
