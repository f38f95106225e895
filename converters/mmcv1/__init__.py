"""What a checkpoint that mmcv 1.x's Runner wrote says of its training, read as that runner would."""
