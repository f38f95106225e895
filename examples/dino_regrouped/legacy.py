"""MMDetection's own DINO, as installed with pip."""

from legacy_adapters import mmdet3, standin
from legacy_adapters.recording.taps import matchings, random_taps, rankings


class MMDetDINO(mmdet3.MMDet3Adapter):
    """Build and run mmdet's model; the base does the rest."""

    def config(self, options):
        return mmdet3.packaged_config(options["config"])

    def build(self, options, device):
        standin.install()  # operators, where mmcv was installed without its compiled ones
        import mmdet.models  # noqa: F401  (registers its modules)

        return mmdet3.build_model(self.config(options), options["overrides"])

    def taps(self, model):
        from mmdet.models.task_modules.assigners import hungarian_assigner

        return [*matchings({hungarian_assigner: "match"}), *random_taps(), *rankings()]

    def provenance(self, options):
        import mmcv
        import mmdet
        import mmengine

        return dict(code_base="mmdet " + mmdet.__version__, modules=mmdet3.module_provenance(mmdet, mmcv, mmengine))


ADAPTER = MMDetDINO()
