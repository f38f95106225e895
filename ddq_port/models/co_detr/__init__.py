"""Co-DETR: DETRs with Collaborative Hybrid Assignments Training (https://arxiv.org/abs/2211.12860)."""

from .atss_head import CoATSSHead
from .decoders import CoDeformableDetrTransformerDecoder, DinoTransformerDecoder
from .deformable_head import CoDeformDETRHead
from .detector import CoDETR
from .dino_head import CoDINOHead
from .layers import DetrTransformerEncoder
from .roi_head import CoStandardRoIHead
from .swin import SwinTransformerV1
from .transformer import CoDeformableDetrTransformer, CoDinoTransformer

__all__ = [
    "CoATSSHead", "CoDETR", "CoDINOHead", "CoDeformDETRHead", "CoDeformableDetrTransformer",
    "CoDeformableDetrTransformerDecoder", "CoDinoTransformer", "CoStandardRoIHead", "DetrTransformerEncoder",
    "DinoTransformerDecoder", "SwinTransformerV1",
]  # fmt: skip
