"""The port: subclasses of mmdet's DINO."""

import ddq_port.ops.standin

ddq_port.ops.standin.install()  # operators, where mmcv was installed without its compiled ones

from mmdet.models.task_modules.assigners import hungarian_assigner  # noqa: E402

from legacy_adapters import mmdet3  # noqa: E402
from legacy_adapters.recording.taps import matchings, random_taps, rankings  # noqa: E402

from . import model as port  # noqa: E402


class RegroupedDINO(mmdet3.MMDet3Adapter):
    """Build and run the port."""

    def config(self, options):
        return mmdet3.packaged_config(options["config"])

    def build(self, options, device):
        config = mmdet3.merged_config(self.config(options), options["overrides"])
        config.model.type, config.model.bbox_head.type = port.RegroupedDINO, port.RenamedHead
        return mmdet3.build_from(config)

    def taps(self, model):
        return [*matchings({hungarian_assigner: "match"}), *random_taps(), *rankings()]

    def provenance(self, options):
        import mmcv
        import mmdet
        import mmengine

        return dict(modules=mmdet3.module_provenance(mmdet, mmcv, mmengine))


ADAPTER = RegroupedDINO()
