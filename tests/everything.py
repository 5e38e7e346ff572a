"""Every feature of a recipe at once, on images of a few pixels: what must hold for one must hold for all together."""

# Two epochs grow from 16 to 24 px; the average is an EMA in them and the mean of the weights (SWA) from the third on.
EVERYTHING = (
    *(
        "data=synthetic",
        "data.num_train=330",
        "data.num_val=50",
        "data.stored_size=24",
        "data.image_size=24",
        "data.resize_size=28",
    ),
    *("data.ramp_from_size=16", "data.ramp_to_epoch=2", "data.ramp_multiple=8"),
    *("model=small_resnet", "model.width=16", "model.stem_stride=2", "model.blur_pool=convs", "model.drop_path=0.2"),
    *("model.zero_init_residual=true", "model.gradient_checkpointing=true"),
    *("augment.operations=rand_augment", "augment.brightness=0.4", "augment.contrast=0.4", "augment.saturation=0.4"),
    *("augment.hue=0.1", "augment.erase_probability=0.5", "augment.erase_with=noise", "augment.mixup_alpha=0.2"),
    *("augment.cutmix_alpha=1.0", "augment.mix_probability=0.8", "augment.repeats=2"),
    *("optim=sam", "optim.sam_every_steps=2", "optim.layer_decay=0.9", "optim.peak_lr=0.05", "max_grad_norm=5.0"),
    *("loss=bce", "label_smoothing=0.1", "schedule=one_cycle", "schedule.warmup_epochs=1"),
    *(
        "average=ema_swa",
        "average.half_life_steps=5",
        "average.decay=null",
        "average.every_steps=2",
        "average.recalibrate_images=64",
    ),
    *("average.swa_start_epoch=2", "average.swa_lr=0.01", "average.swa_anneal_epochs=1", "test_time_augmentation=flip"),
    *("batch_size=32", "epochs=4", "max_local_batch_size=16"),
)
