"""The keys of diffusers' and transformers' configurations, and what each means by its absence."""

from typing import Any

# What a configuration that is silent about a key means by it: Stable Diffusion 1.x's.
UNET_SILENT: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "transformer_layers_per_block": 1,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "use_linear_projection": False,
}
VAE_SILENT: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
# Keys that change the network and stand, if at all, at the value that ours has built in.
UNET_NEUTRAL: dict[str, Any] = {
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "mid_block_only_cross_attention": None,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "cross_attention_norm": None,
}
UNET_IDLE = ("upcast_attention", "addition_embed_type_num_heads")  # precision alone, or read only beside another key
VAE_NEUTRAL: dict[str, Any] = {
    "act_fn": "silu",
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
VAE_IDLE = ("sample_size", "force_upcast", "scaling_factor", "down_block_types", "up_block_types")
TEXT_NEUTRAL: dict[str, Any] = {
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "quantization_config": None,
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
