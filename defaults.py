"""Every option of the project, with its meaning, unit, default and source; and how a config file is read.

    cfg = load_cfg("configs/cuhk_sysu.yaml", ["SOLVER.BASE_LR", "0.001"])

A config file holds only what differs from the tree below, or from the file that its key `BASE` names (a path relative
to the file itself). Values given as `opts` come last. "Published" in the comments means the GLCNet release of 2021
and, before it, SeqNet (2021), whose values it keeps.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode as CN

from utils import options

_C = CN()

# Root of a user's data; datasets are looked for in SYS_HOME_DIR/datasets/ps/{cuhk_sysu,prw,MovieNet-PS}. The
# environment variable of the same name sets the default.
_C.SYS_HOME_DIR = os.environ.get("SYS_HOME_DIR", "~")
# Folder of a training run: config, log, TensorBoard events, checkpoints, metrics.
_C.OUTPUT_DIR = "outputs/default"
# Device of the model: "cuda", "cuda:1", "cpu"; "auto" takes CUDA where there is one.
_C.DEVICE = "auto"
# Seed of weights, data order, flips and sampling.
_C.SEED = 1
# Use deterministic algorithms only, so that the same seed gives the same result on CUDA (slower). On the CPU it does
# anyway, with the same number of threads.
_C.DETERMINISTIC = False
# Epochs between two evaluations during training; 0 evaluates at the end only.
_C.EVAL_PERIOD = 1
# Logging interval: optimiser steps between two lines of losses in the log and in TensorBoard.
_C.DISP_PERIOD = 10
# Epochs between two checkpoints.
_C.CKPT_PERIOD = 1
# Minutes between two checkpoints within an epoch; 0: none.
_C.CKPT_MINUTES = 15.0
# How many of the newest checkpoints are kept (last.pth, last.1.pth, ...), besides the best one.
_C.CKPT_KEEP = 2

# -------------------------------------------------------------------------------------------------------------- input
_C.INPUT = CN()
# "CUHK-SYSU", "PRW" or "MovieNet-CS".
_C.INPUT.DATASET = "CUHK-SYSU"
# Folder of the dataset; empty: derived from SYS_HOME_DIR.
_C.INPUT.DATA_ROOT = ""
# Further datasets to train on, each as "NAME SHARE FOLDER": its share of the images of an epoch (what is left is
# DATASET's, each of whose images an epoch shows once) and its folder (may be left out: derived from SYS_HOME_DIR), such
# as ["CUHK-SYSU 0.5 data/cuhk_sysu"]. Identities stay apart. Evaluation and tests are on DATASET alone.
_C.INPUT.EXTRA_DATASETS = []
# Images are resized so that the short side has MIN_SIZE pixels, or the long one MAX_SIZE if that is smaller
# (published).
_C.INPUT.MIN_SIZE = 900
_C.INPUT.MAX_SIZE = 1500
# Multi-scale training: each image is resized with MIN_SIZE and MAX_SIZE times one of these factors, chosen by seed and
# epoch; [1.0] is one size.
_C.INPUT.TRAIN_SCALES = [1.0]
# Training batches hold images that are all wider than high, or none of which is, so that less is padded. The headers
# of all training images are read when a run begins.
_C.INPUT.SAME_ORIENTATION = False
# Images per process and forward pass in training. Batch norm learns from them, so 1 or 2 cost several points of mAP
# (published: 5).
_C.INPUT.BATCH_SIZE_TRAIN = 5
# Images per forward pass at test time; only coattention's and SCORE_NORM batch's results depend on it.
_C.INPUT.BATCH_SIZE_TEST = 3
# Largest image that is decoded, in pixels (width x height): a small file can hold an enormous image.
_C.INPUT.MAX_PIXELS = 80_000_000
# A training image that cannot be read: "error" ends the run and names the file; "skip" replaces it by another image,
# chosen by seed and epoch, and names and counts the file in the log. Tests never skip an image.
_C.INPUT.DAMAGED_IMAGES = "error"
# Worker processes of each data loader; 0 loads in the main process.
_C.INPUT.NUM_WORKERS = 4
# Probability of a horizontal flip in training (published).
_C.INPUT.FLIP_PROB = 0.5
# Training on "flip" (whole images, perhaps mirrored; published) or "crops" (square crops, perhaps mirrored, of
# CROP_SIZE x CROP_SIZE pixels, see datasets/augmentation.py; GFN's final recipe: 640). Scene and group context then see
# the crop in training, but whole images in tests.
_C.INPUT.AUGMENTATION = "flip"
_C.INPUT.CROP_SIZE = 640
# With "crops": share of the batches that hold whole images, whose short side then has CROP_SIZE pixels.
_C.INPUT.WHOLE_SHARE = 0.0
# How much brightness, contrast, saturation and hue of training images vary: 0 not at all, 0.2 between 80 and 120 %; hue
# up to 0.5, half the colour circle (torchvision's ColorJitter).
_C.INPUT.COLOUR_JITTER = [0.0, 0.0, 0.0, 0.0]
# MovieNet-CS only: which Train_appN.mat is the training set (10, 30, 50, 70 or 100 appearances an identity).
_C.INPUT.TRAIN_APPEARANCES = 70

# -------------------------------------------------------------------------------------------------------------- model
_C.MODEL = CN()
# Family of networks, see `FAMILIES` in models/build.py: "two_stage" (OIM, NAE, SeqNet, GLCNet, SeqNeXt,
# SEAS) or "anchor_free" (AlignPS). A family has some of the options below; to set another one is an error.
_C.MODEL.FAMILY = "two_stage"
# Lowest score of the people that a query is compared with (published: 0.5; AlignPS 0.2, on PRW 0.15). A two-stage
# network's heads drop boxes below their own SCORE_THRESH first.
_C.MODEL.GALLERY_SCORE_THRESH = 0.5
_C.MODEL.BACKBONE = CN()
# "resnet18", "resnet34", "resnet50" (published), "resnet101", "mobilenet_v2"; "convnext_tiny", "_small", "_base",
# "_large"; "swin_t", "_s", "_b", "swin_v2_t", "_s", "_b"; or "solider_swin_t", "_s", "_b", Swin as SOLIDER has it.
_C.MODEL.BACKBONE.NAME = "resnet50"
# Weights that training starts from: "imagenet" (torchvision's IMAGENET1K_V1), "imagenet_v2" (its second ones, of
# ResNet-50, ResNet-101 and MobileNetV2), "none", or the path of a state dict with torchvision's names; for
# "solider_swin_..." that of SOLIDER's file (checkpoint.pth, or its converted form). Not used when testing or resuming.
_C.MODEL.BACKBONE.WEIGHTS = "imagenet"
# What these weights take: "rgb" (torchvision's: RGB normalised by ImageNet's mean and deviation) or "bgr" (those of
# Caffe: BGR, 0 to 255, less a mean).
_C.MODEL.BACKBONE.PIXELS = "rgb"
# Stochastic depth of ConvNeXt and Swin: the probability with which the last block's residual branch is dropped in
# training; it rises linearly from 0 in the first block. -1: torchvision's (ConvNeXt tiny 0.1, small 0.4, base and large
# 0.5; Swin t 0.2, s 0.3, b 0.5).
_C.MODEL.BACKBONE.DROP_PATH = -1.0
# Stages whose parameters are frozen, counted from the image: 0 none, 1 the first convolution and its normalisation
# (published), 2 the first residual stage too, and so on. Downsampling belongs to the stage that follows.
_C.MODEL.BACKBONE.FROZEN_STAGES = 1
# Batch-norm layers of the backbone whose weight and bias are frozen: "none" beyond FROZEN_STAGES (published), "stem",
# or "all" (also in the heads' copies of the last stage). ConvNeXt and Swin have none.
_C.MODEL.BACKBONE.FROZEN_BN_AFFINE = "none"
# The same choice for their running statistics: a frozen layer normalises with its statistics in training too. "none" is
# published, even for the first layer; "all" is right for batches of one image.
_C.MODEL.BACKBONE.FROZEN_BN_STATISTICS = "none"
# Activation checkpointing of the heads' copies of the last stage: less memory, more time, the same results.
_C.MODEL.BACKBONE.CHECKPOINT_TAILS = False
_C.MODEL.RPN = CN()
# Anchors, in pixels of the resized image, on the one map of stride 16 (published).
_C.MODEL.RPN.ANCHOR_SIZES = [32, 64, 128, 256, 512]
_C.MODEL.RPN.ASPECT_RATIOS = [0.5, 1.0, 2.0]
# IoU with a ground-truth box from which an anchor is positive, and below which it is negative (published).
_C.MODEL.RPN.POSITIVE_IOU = 0.7
_C.MODEL.RPN.NEGATIVE_IOU = 0.3
# Anchors sampled per image for the loss, and the share of positives among them (published).
_C.MODEL.RPN.BATCH_SIZE = 256
_C.MODEL.RPN.POSITIVE_FRACTION = 0.5
# Proposals per image before and after non-maximum suppression, in training and at test (published).
_C.MODEL.RPN.PRE_NMS_TRAIN = 12000
_C.MODEL.RPN.POST_NMS_TRAIN = 2000
_C.MODEL.RPN.PRE_NMS_TEST = 6000
_C.MODEL.RPN.POST_NMS_TEST = 300
_C.MODEL.RPN.NMS_THRESH = 0.7
# Box loss: "l1" (torchvision 0.4, with which the published results were made) or "smooth_l1" (beta 1/9, later
# torchvision).
_C.MODEL.RPN.BOX_LOSS = "l1"
_C.MODEL.ROI_ALIGN = CN()
# Output size (height and width) of RoIAlign, and sampling points per bin and axis (published). The tail halves it: 14
# makes one window of Swin's, 16 one of Swin v2's.
_C.MODEL.ROI_ALIGN.SIZE = 14
_C.MODEL.ROI_ALIGN.SAMPLING_RATIO = 2
# First head: classifies proposals as person or background and refines their boxes.
_C.MODEL.DETECTION_HEAD = CN()
# "faster_rcnn"; "class_agnostic", the same with one set of box deltas for both classes, behind a batch norm (SEAS); or
# "none": the second head works on the RPN's proposals (OIM, NAE, NAE+).
_C.MODEL.DETECTION_HEAD.TYPE = "faster_rcnn"
# Global pooling of a RoI's features: "max" (published) or "average".
_C.MODEL.DETECTION_HEAD.POOL = "max"
# RoIs sampled per image in training, the share of positives among them, and the IoU from which a RoI is positive and
# below which it is negative; RoIs between the two are ignored (published).
_C.MODEL.DETECTION_HEAD.BATCH_SIZE = 128
_C.MODEL.DETECTION_HEAD.POSITIVE_FRACTION = 0.5
_C.MODEL.DETECTION_HEAD.FOREGROUND_IOU = 0.5
_C.MODEL.DETECTION_HEAD.BACKGROUND_IOU = 0.5
# In training, hand the RPN's proposals on to the second head, beside the better boxes (SEAS).
_C.MODEL.DETECTION_HEAD.WITH_PROPOSALS = False
# At test time: lowest score, IoU threshold of non-maximum suppression, maximum number of boxes (published).
_C.MODEL.DETECTION_HEAD.SCORE_THRESH = 0.5
_C.MODEL.DETECTION_HEAD.NMS_THRESH = 0.4
_C.MODEL.DETECTION_HEAD.MAX_DETECTIONS = 300
# Second head: embeds the person and gives the final box. Options as those of the first head.
_C.MODEL.SEARCH_HEAD = CN()
# "norm_aware" (NAE, SeqNet, GLCNet), "linear_score" (SeqNeXt), "multi_granularity" (SEAS), "linear" (OIM) or
# "pixelwise" (NAE+).
_C.MODEL.SEARCH_HEAD.TYPE = "norm_aware"
_C.MODEL.SEARCH_HEAD.POOL = "max"
# Height and width of this head's crops (SEAS: [24, 12]); 0: ROI_ALIGN.SIZE.
_C.MODEL.SEARCH_HEAD.ROI_SIZE = [0, 0]
# The final score of a box: the "first" head's, where there is one (published), or this head's "own" (SeqNeXt).
_C.MODEL.SEARCH_HEAD.SCORE = "first"
# Box deltas "per_class", background's and a person's (published); "agnostic", one set for both (SeqNeXt); or "none":
# the first head's boxes are final (SEAS).
_C.MODEL.SEARCH_HEAD.BOX_DELTAS = "per_class"
# Batch norm after the linear layer that predicts the box deltas (the BN neck of NAE).
_C.MODEL.SEARCH_HEAD.BOX_BATCH_NORM = True
# Multiply gallery embeddings by the box's score (confidence-weighted similarity of NAE).
_C.MODEL.SEARCH_HEAD.WEIGHT_BY_SCORE = True
# Margin of the triplet loss, of cosine similarities (SEAS: CUHK-SYSU 0.25, PRW 0.35). LOSS_WEIGHTS.BOX_TRIPLET above 0
# adds that loss.
_C.MODEL.SEARCH_HEAD.TRIPLET_MARGIN = 0.25
_C.MODEL.SEARCH_HEAD.BATCH_SIZE = 128
_C.MODEL.SEARCH_HEAD.POSITIVE_FRACTION = 0.5
_C.MODEL.SEARCH_HEAD.FOREGROUND_IOU = 0.5
_C.MODEL.SEARCH_HEAD.BACKGROUND_IOU = 0.5
# Sample no more background than people (SEAS).
_C.MODEL.SEARCH_HEAD.EQUAL_BACKGROUND = False
_C.MODEL.SEARCH_HEAD.SCORE_THRESH = 0.5
_C.MODEL.SEARCH_HEAD.NMS_THRESH = 0.5
_C.MODEL.SEARCH_HEAD.MAX_DETECTIONS = 300
# Context features in the embedding besides the person's: an extractor's name, or "none".
# "stack" (release of 2021), "gate" and "multiscale" (release of 2024), "coattention", "pool"; for the group also
# "companions", this project's own: see models/two_stage/context.py.
_C.MODEL.CONTEXT = CN()
_C.MODEL.CONTEXT.SCENE = "stack"
_C.MODEL.CONTEXT.GROUP = "stack"
# In training, form the group from people with a known identity only.
_C.MODEL.CONTEXT.GROUP_LABELLED_ONLY = False
# "companions": when searching, a factor on the learned weight of the companions. With 0 people are found by their own
# looks, as is better where they keep company less than in the training images.
_C.MODEL.CONTEXT.COMPANIONS_FACTOR = 1.0
# Body stripes: six horizontal stripes of each person as further features, from three more copies of the backbone's tail
# (release of 2024).
_C.MODEL.PARTS = False
# NAE+ only: see models/two_stage/pixelwise.py.
_C.MODEL.PIXELWISE = CN()
# L2-normalise embeddings before the OIM loss (the release does not).
_C.MODEL.PIXELWISE.NORMALISED = True
# Divide a RoI's score by the largest of its "image", of the "batch" (images of one forward pass), or by "none".
_C.MODEL.PIXELWISE.SCORE_NORM = "image"
# Anchor-free networks only. "Published" means the release of AlignPS (Yan et al., CVPR 2021), for CUHK-SYSU where
# the two datasets differ.
_C.MODEL.ANCHOR_FREE = CN()
# Stride 2 of a ResNet's stages in the first 1 x 1 convolution of their blocks, as Caffe's weights need it (published),
# or in the 3 x 3 one, as torchvision's do.
_C.MODEL.ANCHOR_FREE.STRIDE_IN_1X1 = False
# Deformable 3 x 3 convolutions in layer2, layer3 and layer4 of a ResNet: AlignPS+.
_C.MODEL.ANCHOR_FREE.DEFORMABLE = False
# Channels of neck and head, and dimensions of an embedding (published).
_C.MODEL.ANCHOR_FREE.WIDTH = 256
# OIM loss: factor on similarities to the queue (published; OIM.SCALAR: 10, PRW 15); normalise a row of the lookup table
# after each update (published: PRW only); how many dimensions of a vector the queue takes (0 all; published: the first
# 64, a fault).
_C.MODEL.ANCHOR_FREE.QUEUE_SCALAR = 10.0
_C.MODEL.ANCHOR_FREE.NORMALISED_ROWS = False
_C.MODEL.ANCHOR_FREE.QUEUE_DIMS = 0
# Triplet loss beside OIM (published: CUHK-SYSU only); leave out the row of the first identity in it (published, a
# fault).
_C.MODEL.ANCHOR_FREE.TRIPLET = True
_C.MODEL.ANCHOR_FREE.TRIPLET_WITHOUT_FIRST = False
# At test time: cells with the best scores that are looked at, lowest probability of a person among them (without
# centre-ness), IoU threshold of non-maximum suppression, maximum number of boxes (published).
_C.MODEL.ANCHOR_FREE.MAX_CANDIDATES = 1000
_C.MODEL.ANCHOR_FREE.MIN_PROBABILITY = 0.05
_C.MODEL.ANCHOR_FREE.NMS_THRESH = 0.5
_C.MODEL.ANCHOR_FREE.MAX_DETECTIONS = 100
# The embedding of a given box (a query, or a ground-truth box): that of the detection which overlaps it most, whatever
# its score ("overlap", published), or of the cell under its centre ("centre").
_C.MODEL.ANCHOR_FREE.QUERY = "overlap"

# Dimensions of each feature in the embedding. Features that the model does not have do not count: GLCNet has 640 with
# scene and group, 512 with the scene. SEAS embeds strips of both maps.
_C.MODEL.EMBEDDING = CN()
_C.MODEL.EMBEDDING.RES4 = 256
_C.MODEL.EMBEDDING.RES5 = 128
_C.MODEL.EMBEDDING.SCENE = 128
_C.MODEL.EMBEDDING.GROUP = 128
# Each of the six body stripes.
_C.MODEL.EMBEDDING.PART = 32
# Online instance matching loss.
_C.MODEL.OIM = CN()
# Rows of the lookup table: identities of the training set; 0: as many as it has.
_C.MODEL.OIM.NUM_IDS = 0
# Size of the circular queue of people without identity (published: CUHK-SYSU 5000, PRW 500, MovieNet 3000).
_C.MODEL.OIM.QUEUE_SIZE = 5000
# Momentum of the lookup table; factor (inverse temperature) on similarities (published; OIM's first release: 10).
_C.MODEL.OIM.MOMENTUM = 0.5
_C.MODEL.OIM.SCALAR = 30.0
# Two-stage networks: leave out rows of the tables that nobody has filled yet (SeqNeXt); the loss is the mean over the
# "labelled" people of a batch (published) or over all "people" (SeqNeXt).
_C.MODEL.OIM.MASK_EMPTY = False
_C.MODEL.OIM.MEAN_OVER = "labelled"
# A gallery filter (GFN) scores how likely the query is in a gallery image, from that image as a whole; tools.test
# --filter multiplies similarities by it. "none", "combined" (compares the query and its image with the gallery image;
# GFN's final choice), "separate" (the query with the gallery image) or "image" (one image with the other).
_C.MODEL.FILTER = CN()
_C.MODEL.FILTER.TYPE = "none"
# Cells along each axis that an image's map is pooled to (GFN: 56, four times ROI_ALIGN.SIZE). Larger grids than the map
# repeat its cells: lower it for images below 900 pixels.
_C.MODEL.FILTER.GRID = 56
# In training, a person is its embedding in the "batch" (GFN's final choice) or its "prototype", the row of the lookup
# table.
_C.MODEL.FILTER.QUERIES = "batch"
# Remembered training images that it learns from beside a batch, for each of as many identities as the batch has images:
# that show the identity, too, and that show another one of the same image instead (GFN: 1 and 1). With 0 and 0 nothing
# is remembered.
_C.MODEL.FILTER.POSITIVES = 1
_C.MODEL.FILTER.NEGATIVES = 1
# Weights of the losses (published).
_C.MODEL.LOSS_WEIGHTS = CN()
_C.MODEL.LOSS_WEIGHTS.RPN_CLS = 1.0
_C.MODEL.LOSS_WEIGHTS.RPN_REG = 1.0
_C.MODEL.LOSS_WEIGHTS.PROPOSAL_CLS = 1.0
_C.MODEL.LOSS_WEIGHTS.PROPOSAL_REG = 10.0
_C.MODEL.LOSS_WEIGHTS.BOX_CLS = 1.0
_C.MODEL.LOSS_WEIGHTS.BOX_REG = 1.0
_C.MODEL.LOSS_WEIGHTS.BOX_REID = 1.0
# Beside OIM, a triplet loss with its table's rows (SEAS: 1), and a classifier of the training set's identities (COAT:
# PRW 0.5, CUHK-SYSU 0.1; there beside OIM with weight 0.5). 0: without.
_C.MODEL.LOSS_WEIGHTS.BOX_TRIPLET = 0.0
_C.MODEL.LOSS_WEIGHTS.BOX_SOFTMAX = 0.0
# Of the gallery filter (GFN: 1).
_C.MODEL.LOSS_WEIGHTS.FILTER = 1.0

# ------------------------------------------------------------------------------------------------------------- solver
_C.SOLVER = CN()
_C.SOLVER.MAX_EPOCHS = 25
# A checkpoint, of this project or a published one, whose weights training starts from instead of the backbone's. The
# network must be that of the options. Tables of identities come along where they have the size that is needed, as those
# of the same training set. Not used when resuming.
_C.SOLVER.INIT_WEIGHTS = ""
# "sgd" (published), "adam" or "adamw" (weight decay apart from the gradient, Loshchilov and Hutter, ICLR 2019).
_C.SOLVER.OPTIMIZER = "sgd"
# Learning rate for a total batch of REFERENCE_BATCH images (published: 0.003 for 5).
_C.SOLVER.BASE_LR = 0.003
_C.SOLVER.REFERENCE_BATCH = 5
# Scale the learning rate by the total batch (all processes and accumulated passes) over REFERENCE_BATCH: linearly, for
# Adam and AdamW by the square root.
_C.SOLVER.SCALE_LR = False
# After the warm-up: "step" (published) or "cosine", half a cosine wave down to END_FACTOR of the learning rate at the
# end of the last epoch.
_C.SOLVER.SCHEDULE = "step"
_C.SOLVER.END_FACTOR = 0.01
# "step": epochs after which the learning rate is multiplied by GAMMA (published).
_C.SOLVER.MILESTONES = [16]
_C.SOLVER.GAMMA = 0.1
# Linear warm-up from WARMUP_FACTOR of the learning rate over the first WARMUP_EPOCHS epochs (published).
_C.SOLVER.WARMUP_EPOCHS = 1.0
_C.SOLVER.WARMUP_FACTOR = 0.001
# Of SGD; Adam's and AdamW's first beta (the second is 0.999).
_C.SOLVER.MOMENTUM = 0.9
# Factor on the learning rate of what starts from the backbone's weights, the heads' copies of the last stage included.
_C.SOLVER.BACKBONE_LR_FACTOR = 1.0
# Weight decay of weights and of biases (published: the same; NAE: none on biases).
_C.SOLVER.WEIGHT_DECAY = 0.0005
_C.SOLVER.WEIGHT_DECAY_BIAS = 0.0005
# Factor on the learning rate of biases (published: 1; AlignPS: 2).
_C.SOLVER.BIAS_LR_FACTOR = 1.0
# Biases of normalisation layers learn as weights do, in rate and decay (AlignPS; as mmdetection).
_C.SOLVER.NORM_BIASES_AS_WEIGHTS = False
# Weight decay also on normalisation layers (weights and biases), layer scales and position tables (published), or on
# none of these, as in most recipes of AdamW, with WEIGHT_DECAY_BIAS 0.
_C.SOLVER.DECAY_NORMS = True
# Factor on the learning rate of the convolutions that give a deformable convolution its offsets. Their biases decay as
# weights do.
_C.SOLVER.OFFSET_LR_FACTOR = 1.0
# Exponential moving average of the weights, see engine/averaging.py: its decay per step, such as 0.9998 for tens of
# thousands of steps; 0: none. What is evaluated, tested and stored as best.pth is then the average.
_C.SOLVER.EMA = 0.0
# Largest norm of the gradient of all parameters; 0 does not clip (published).
_C.SOLVER.CLIP_GRADIENTS = 10.0
# Steps in a row whose losses or gradients are not finite before training stops; each of them is skipped. In fp16 the
# first ones are skipped until the loss scale fits.
_C.SOLVER.MAX_SKIPPED = 20
# Mixed precision in training: "off", "fp16" (with loss scaling) or "bf16".
_C.SOLVER.AMP = "off"
# Gradient accumulation: forward passes whose gradients are averaged before an optimiser step.
_C.SOLVER.ACCUMULATE = 1

# --------------------------------------------------------------------------------------------------------- evaluation
_C.EVAL = CN()
# Images in each query's gallery: 0 is the dataset's usual number (CUHK-SYSU 100, MovieNet-CS 2000, PRW all frames), -1
# all.
_C.EVAL.GALLERY_SIZE = 0
# Score from which a detection counts in detection recall and AP. A two-stage network's heads drop boxes below their own
# SCORE_THRESH first, AlignPS those below MODEL.GALLERY_SCORE_THRESH.
_C.EVAL.DETECTION_SCORE_THRESH = 0.01
# Exclude gallery images of the query's own camera (PRW's multi-view setting).
_C.EVAL.CROSS_CAMERA = False
# Companion voting (`--companions`), a re-ranking of this project: factor of a vote, and the share of a companion's
# similarities to other people that count as chance; see utils/evaluation/companions.py.
_C.EVAL.COMPANIONS = CN()
_C.EVAL.COMPANIONS.WEIGHT = 0.2
_C.EVAL.COMPANIONS.QUANTILE = 0.998
# Similarities from which on a search calls a person a possible match and a match; 0: not known. They are a network's
# own: `tools.test` measures them, and stores them with a checkpoint (`--thresholds-out`).
_C.EVAL.THRESHOLDS = CN()
_C.EVAL.THRESHOLDS.POSSIBLE = 0.0
_C.EVAL.THRESHOLDS.MATCH = 0.0
# Precision of the network at test time and in the demo: "off" (float32), "fp16" or "bf16".
_C.EVAL.AMP = "off"
# Memory in MiB for similarities of queries to the gallery while scoring, at least that of 32 queries. Scores do not
# depend on it.
_C.EVAL.BLOCK_MB = 64
# Compile the network by torch.compile before searching, which takes half a minute at the start and at a second image
# size. On CPUs it does not pay, see tools/README.md.
_C.EVAL.COMPILE = False

ANY = float("inf")
RANGES = {
    "SEED": (0, ANY),
    "EVAL_PERIOD": (0, ANY),
    "DISP_PERIOD": (1, ANY),
    "CKPT_*": (0, ANY),
    "CKPT_[PK]*": (1, ANY),
    "INPUT.M*": (1, ANY),
    "INPUT.NUM_WORKERS": (0, ANY),
    "INPUT.FLIP_PROB": (0, 1),
    "INPUT.WHOLE_SHARE": (0, 1),
    "INPUT.CROP_SIZE": (1, ANY),
    "MODEL.BACKBONE.FROZEN_STAGES": (0, ANY),
    "MODEL.BACKBONE.DROP_PATH": (-1, 1),
    "MODEL.ROI_ALIGN.*": (1, ANY),
    "*.BATCH_SIZE*": (1, ANY),
    "*.POSITIVE_FRACTION": (0, 1),
    "*_IOU": (0, 1),
    "*.NMS_THRESH": (0, 1),
    "*_NMS_T*": (1, ANY),
    "*.MAX_DETECTIONS": (1, ANY),
    "MODEL.EMBEDDING.*": (1, ANY),
    "*.TRIPLET_MARGIN": (0, ANY),
    "MODEL.CONTEXT.COMPANIONS_FACTOR": (0, ANY),
    "MODEL.OIM.SCALAR": (0.001, ANY),
    "MODEL.OIM.[NQ]*": (0, ANY),
    "MODEL.ANCHOR_FREE.QUEUE_SCALAR": (0.001, ANY),
    "MODEL.ANCHOR_FREE.MAX_*": (1, ANY),
    "*.MOMENTUM": (0, 1),
    "MODEL.FILTER.GRID": (2, ANY),
    "MODEL.FILTER.*TIVES": (0, ANY),
    "MODEL.LOSS_WEIGHTS.*": (0, ANY),
    "SOLVER.MAX_*": (1, ANY),
    "SOLVER.REFERENCE_BATCH": (1, ANY),
    "SOLVER.ACCUMULATE": (1, ANY),
    "SOLVER.MOMENTUM": (0, 0.9999),
    "SOLVER.[BGW]*": (0, ANY),
    "SOLVER.OFFSET*": (0, ANY),
    "SOLVER.E*": (0, 1),
    "SOLVER.CLIP_GRADIENTS": (0, ANY),
    "EVAL.BLOCK_MB": (0, ANY),
    "EVAL.COMPANIONS.WEIGHT": (0, ANY),
    "EVAL.COMPANIONS.QUANTILE": (0, 1),
    "EVAL.THRESHOLDS.*": (0, 1),
}
"""Options by pattern (`fnmatch`), and their least and largest values; others would fail only later, or silently."""


def get_default_cfg() -> CN:
    """A fresh copy of the tree of options, with its default values."""
    return _C.clone()


def load_cfg(path: str | Path | None, opts: Sequence[str] = ()) -> CN:
    """The options of a config file and then `opts`, over the defaults; frozen.

    Args:
        path: YAML file, read with safe loading; None for the defaults alone. `BASE` in it names another config file.
        opts: keys and values in turn, as on a command line: `["SOLVER.BASE_LR", "0.001"]`.

    Raises:
        OSError: a config file is missing, or cannot be opened.
        UserError: a key does not exist (the nearest one is named), comes twice in a file or lacks a value; a value has
            the wrong type; a file is not a mapping in YAML; or files name each other as base in a circle.
    """
    files = [] if path is None else options.read_file(Path(path))
    return options.merge(_C, [*files, options.read_words(opts)])


def read_cfg(text: str, source: str, opts: Sequence[str] = ()) -> CN:
    """The options of a config that came inside another file; otherwise as `load_cfg`.

    Args:
        text: YAML. It may be a stranger's, so `BASE` in it, which would open a file, is refused.
        source: name of the config in errors.
        opts: see `load_cfg`.
    """
    return options.merge(_C, [options.read_text(text, source), options.read_words(opts)])
