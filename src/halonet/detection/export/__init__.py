"""Trained models in forms that other runtimes read."""

from halonet.detection.export.exportable import ExportableDetector as ExportableDetector
from halonet.detection.export.file import export_detector as export_detector
