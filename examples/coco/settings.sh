# What all stages share; set any of it in the environment. The defaults are the published training of the 4-scale
# ResNet-50: 8 GPUs with 2 images each, 12 epochs of COCO.
: "${LEGACY_REPO:=DDQ}"          # checkout of github.com/jshilong/DDQ, branch ddq_detr
: "${LEGACY_PYTHON:=python}"     # interpreter of the official code's own environment (torch 1.x, compiled mmcv)
: "${LEGACY_CONFIG:=projects/configs/ddq_detr/ddq-detr-4scale_r50_8xb2-12e_coco.py}"
: "${RELEASED:=ddqdetr_r50.pth}" # the released checkpoint
: "${CONFIG:=ddq-detr-4scale_r50_8xb2-12e_coco}"
: "${FAMILY:=ddq_detr}"
: "${VARIANT:=r50_4scale}"
: "${ANN:=data/coco/annotations/instances_val2017.json}"
: "${IMAGES:=data/coco/val2017}"
: "${OUT:=runs/coco}"
: "${RANKS:=8}"                  # GPUs of this machine; processes on gloo where there are none
: "${DEVICE:=cuda}"
: "${LIMIT:=500}"                # images that both sides detect in, one to one
: "${LAST:=epoch_12.pth}"        # name of the last checkpoint of a training
: "${SEED:=0}"
: "${LAUNCHER:=pytorch}"         # slurm under srun
TRAIN_OPTIONS=${TRAIN_OPTIONS:-} # more options of ddq-train, split at spaces
EVAL_OPTIONS=${EVAL_OPTIONS:-}   # more options of ddq-eval
mkdir -p "$OUT"

# Run a module of this toolkit once for each rank.
on_all_ranks() {
    if [ "$LAUNCHER" = slurm ]; then
        python -m "$@" --launcher slurm
    else
        torchrun --nproc-per-node "$RANKS" --master-port "${PORT:-29500}" -m "$@" --launcher pytorch
    fi
}
