"""Low-level operators of the detectors, in plain torch.

Nothing is imported here, so that ``import ddq_port`` stays free of torch. The modules are:

* :mod:`ddq_port.ops.nms`: exact greedy non-maximum suppression with early exit;
* :mod:`ddq_port.ops.continuous`: deformable attention and focal loss, one file for both sides of a comparison;
* :mod:`ddq_port.ops.roi_align`, :mod:`ddq_port.ops.deform_conv`: RoIAlign and deformable convolution, such files, too;
* :mod:`ddq_port.ops.softnms`: soft NMS and NMS in groups;
* :mod:`ddq_port.ops.mmcv_ext`: the functions of mmcv's compiled extension that the detectors need;
* :mod:`ddq_port.ops.standin`: makes the latter importable as ``mmcv._ext`` where mmcv was built without it.
"""
