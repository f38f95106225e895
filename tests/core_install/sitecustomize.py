"""Makes an interpreter whose ``PYTHONPATH`` begins with this folder behave like one of a core install."""

import sys

ABSENT = ("cv2", "matplotlib", "mmcv", "mmdet", "mmengine", "PIL", "pycocotools")


class _Absent:
    """Refuses what a core install does not bring."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, _Absent())
