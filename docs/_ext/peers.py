"""The optimizers, schedules and transforms of other packages, with the names that they have here.

A row is the other package's name, ours, the arguments that give what the other has by default, and a remark. A name of
ours that the package does not have (yet) is shown as not available. Ours may also be None, with the reason as remark,
or text with a space. `porting.py` makes tables of these rows, and `tests/system/test_porting.py` tries each of them.
"""

LINE_SEARCH = "its line search is another one"
NEEDS_LOSS = "it needs the value of the loss"
PROJECTION = "its gradients are projected to a subspace, which is chosen anew every few hundred steps"
CURVATURE = "it needs products with the Hessian; `SophiaH` takes such estimates"
NOT_RECORDED = "not among the recorded results"
NO_RATE = "asked for rarely; `Prodigy` has no rate to choose either"
VARIANT = "a variant of Adam that few use"

TORCH = [
    ("Adadelta", "Adadelta", "", ""),
    ("Adafactor", "Adafactor", "", ""),
    ("Adagrad", "Adagrad", "", ""),
    ("Adam", "Adam", "", "``decoupled_weight_decay=True`` is `AdamW`"),
    ("AdamW", "AdamW", "", ""),
    ("Adamax", "Adamax", "", ""),
    ("ASGD", "ASGD", "", "``averaged()`` returns the averages; the rate and the weight of a step are float64"),
    ("LBFGS", "LBFGS", "", ""),
    (
        "Muon",
        "Muon",
        "",
        "the iterations are in float32 or float64, there in bfloat16; ``adjust_lr_fn=None``, PyTorch's default, is the "
        "factor of ``'original'`` there, and 1 here: leave it out",
    ),
    ("NAdam", "NAdam", "", "the product of momenta is float64"),
    ("RAdam", "RAdam", "", "``threshold`` and ``unrectified`` have the paper's and its authors' choices"),
    ("RMSprop", "RMSprop", "", "``centered=True`` clamps the variance at 0, where rounding gives NaN there"),
    ("Rprop", "Rprop", "", ""),
    ("SGD", "SGD", "", "``momentum_form`` has the forms of other packages"),
    ("SparseAdam", "Adam", "eps_form='keras'", "``step_rows`` takes the gradients of rows: :doc:`embeddings`"),
    ("swa_utils.AveragedModel", "SWA", "", ""),
    ("swa_utils.get_ema_avg_fn", "EMA", "", ""),
]

TORCH_SCHEDULES = [
    (
        "ChainedScheduler([a, b])",
        "schedules.chain([a, b])",
        "all but one are factors, such as ``exponential(1.0, 0.99)``",
    ),
    (
        "ConstantLR(opt, factor, N)",
        "schedules.join([schedules.constant(factor * lr), schedules.constant(lr)], [N])",
        "",
    ),
    (
        "CosineAnnealingLR(opt, N, eta_min)",
        "schedules.cosine(lr, eta_min, N)",
        "after ``N`` PyTorch's goes up again: ``after='periodic'``",
    ),
    (
        "CosineAnnealingWarmRestarts(opt, T_0, T_mult, eta_min)",
        "schedules.cosine_restarts(lr, eta_min, T_0, T_mult)",
        "",
    ),
    ("CyclicLR(opt, base_lr, max_lr, 2000)", "schedules.cyclic(base_lr, max_lr, 2000)", "without ``scale_fn``"),
    ("ExponentialLR(opt, 0.99)", "schedules.exponential(lr, 0.99)", ""),
    ("LambdaLR(opt, f)", "lambda step: lr * f(step)", ""),
    ("LinearLR(opt, a, b, N)", "schedules.linear(a * lr, b * lr, N)", ""),
    ("MultiplicativeLR(opt, f)", "schedules.multiplicative(lr, f)", ""),
    ("MultiStepLR(opt, [30, 80], gamma=0.1)", "schedules.multi_step(lr, [30, 80], gamma=0.1)", ""),
    (
        "OneCycleLR(opt, max_lr, N)",
        "schedules.one_cycle(max_lr, N)",
        "constant after ``N`` steps, where PyTorch raises an error",
    ),
    ("PolynomialLR(opt, N, power=2.0)", "schedules.polynomial(lr, N, power=2.0)", ""),
    ("ReduceLROnPlateau(opt)", "schedules.reduce_on_plateau(lr)", "``rate.update(loss)`` for ``scheduler.step(loss)``"),
    ("SequentialLR(opt, [a, b], [N])", "schedules.join([a, b], [N])", ""),
    ("StepLR(opt, 30, gamma=0.1)", "schedules.step(lr, 30, gamma=0.1)", ""),
    (
        "swa_utils.SWALR(opt, swa_lr)",
        "schedules.swalr(a, swa_lr, N)",
        "it wraps the schedule before it, and starts at step ``N``",
    ),
]

KERAS = [
    ("Adadelta", "Adadelta", "lr=0.001, rho=0.95, eps=1e-7", ""),
    (
        "Adafactor",
        "Adafactor",
        "lr=0.001",
        "no exact match: Keras adds ``epsilon_1`` to each squared gradient, where here it is a "
        "floor under the averages, and takes the root mean square of the parameters after weight decay",
    ),
    ("Adagrad", "Adagrad", "lr=0.001, initial_accumulator_value=0.1, eps=1e-7, eps_inside_sqrt=True", ""),
    ("Adam", "Adam", "eps=1e-7, eps_form='keras'", "``amsgrad`` is the same option"),
    ("Adamax", "Adamax", "lr=0.001, eps=1e-7, eps_form='keras'", ""),
    ("AdamW", "AdamW", "weight_decay=0.004, eps=1e-7, eps_form='keras'", ""),
    (
        "Ftrl",
        "FTRL",
        "",
        "``l2`` is twice ``l2_regularization_strength``; the others are ``l1``, ``l2_shrinkage`` and ``beta``",
    ),
    ("Lamb", "LAMB", "eps=1e-7, weight_decay=0.0, always_adapt=True, max_grad_norm=None", NOT_RECORDED),
    ("Lion", "Lion", "lr=0.001", ""),
    (
        "LossScaleOptimizer",
        "nonfinite='skip' in the constructor, grad_scale in the step",
        "",
        "the scale is yours to change",
    ),
    ("MultiOptimizer", None, "", "make an optimizer for each part of the parameters"),
    (
        "Muon",
        "Muon",
        'weight_decay=0.004, adam_eps=1e-7, adjust_lr_fn="match_rms_adamw", momentum_form="heavy_ball", eps_form="add"',
        "``rms_rate=None`` is ``adjust_lr_fn=None``; the rates of what takes Adam's steps are groups' here. Adam's eps "
        "is added before the correction of the bias there; arrays of three axes and more are not matrices: a group "
        "with ``fallback=True``",
    ),
    ("Nadam", "NAdam", "lr=0.001, eps=1e-7, momentum_decay=1.0", ""),
    (
        "RMSprop",
        "RMSprop",
        "lr=0.001, alpha=0.9, eps=1e-7, eps_inside_sqrt=True",
        "with ``momentum`` also ``lr_in_momentum=True``",
    ),
    ("ScheduleFreeAdamW", "ScheduleFreeAdamW", "", "with warm-up or weight decay Keras's is another method"),
    ("SGD", "SGD", "lr=0.01, momentum_form='velocity'", "``momentum`` and ``nesterov`` are the same options"),
    ("use_ema=True, of each", "EMA", "", ""),
]

KERAS_SCHEDULES = [
    (
        "CosineDecay(lr, N)",
        "schedules.cosine(lr, 0.0, N)",
        "Keras's ``alpha`` is the lowest rate as a fraction of ``lr``",
    ),
    ("CosineDecay(0.0, N, warmup_target=lr, warmup_steps=W)", "schedules.warmup_cosine(lr, W, W + N)", ""),
    ("CosineDecayRestarts(lr, N)", "schedules.cosine_restarts(lr, 0.0, N, 2)", "``m_mul`` is ``decay``"),
    ("ExponentialDecay(lr, N, rate)", "schedules.exponential(lr, rate ** (1 / N))", ""),
    ("ExponentialDecay(lr, N, rate, staircase=True)", "schedules.step(lr, N, gamma=rate)", ""),
    ("InverseTimeDecay(lr, N, rate)", "schedules.inverse_time(lr, rate, N)", "``staircase`` is the same option"),
    (
        "PiecewiseConstantDecay([a, b], [lr, lr / 2, lr / 4])",
        "schedules.multi_step(lr, [30 + 1, 80 + 1], gamma=0.5)",
        "with ``a`` = 30 and ``b`` = 80: Keras changes the rate one step later",
    ),
    ("PolynomialDecay(lr, N, end, power)", "schedules.polynomial(lr, N, power, end)", "``cycle`` is not available"),
]

OPTAX = [
    ("adabelief", "AdaBelief", "", "``eps`` is both ``eps`` and ``eps_root``"),
    ("adadelta", "Adadelta", "", ""),
    (
        "adafactor",
        "AdafactorHF",
        "",
        "Optax factors only if both sides have 128 elements, and does not multiply decay by the rate",
    ),
    ("adagrad", "Adagrad", "initial_accumulator_value=0.1, eps=1e-7, eps_inside_sqrt=True", ""),
    ("adam", "Adam", "", "``nesterov=True`` is ``NAdam(momentum_decay=None)``; there is no ``eps_root``"),
    ("adamax", "Adamax", "", ""),
    ("adamaxw", "Adamax", "weight_decay=1e-4, decoupled_weight_decay=True", ""),
    ("adamw", "AdamW", "weight_decay=1e-4", ""),
    ("adan", "Adan", "", "no exact match: Optax 0.2.8 has an error in the first difference of gradients"),
    ("amsgrad", "Adam", "amsgrad=True", "no exact match: Optax takes the maximum after the correction of the bias"),
    ("fromage", "Fromage", "", ""),
    ("lamb", "LAMB", "weight_decay=0.0, always_adapt=True, max_grad_norm=None", NOT_RECORDED),
    ("lars", "LARS", "lr=0.1, eps=0.0, always_adapt=True", NOT_RECORDED),
    ("lbfgs", "LBFGS", "", LINE_SEARCH),
    ("lion", "Lion", "weight_decay=1e-3", ""),
    ("nadam", "NAdam", "momentum_decay=None", ""),
    ("nadamw", "NAdam", "momentum_decay=None, weight_decay=1e-4, decoupled_weight_decay=True", ""),
    ("noisy_sgd", None, "", "add the noise to the gradients"),
    ("novograd", "NovoGrad", "betas=(0.9, 0.25), eps=1e-6", ""),
    ("optimistic_adam, optimistic_adam_v2", None, "", "for games, where gradients belong to several players"),
    ("optimistic_gradient_descent", None, "", "as above"),
    ("polyak_sgd", None, "", NEEDS_LOSS),
    ("radam", "RAdam", "", ""),
    (
        "rmsprop",
        "RMSprop",
        "alpha=0.9, eps_inside_sqrt=True, lr_in_momentum=True",
        "without ``initial_scale`` and bias correction",
    ),
    ("rprop", "Rprop", "", "no exact match: Optax 0.2.8 moves by the step of before"),
    ("sgd", "SGD", "", ""),
    ("sign_sgd", "SignSGD", "", ""),
    ("signum", "Signum", "", ""),
    ("sm3", "SM3", "momentum=0.9, eps=1e-8", ""),
    ("yogi", "Yogi", "", ""),
    ("contrib.acprop", None, "", VARIANT),
    ("contrib.ademamix", "AdEMAMix", "", ""),
    ("contrib.adopt", "ADOPT", "", ""),
    ("contrib.cocob", None, "", NO_RATE),
    ("contrib.dadapt_adamw", "DAdaptAdam", "use_bias_correction=True, decoupled_weight_decay=True", ""),
    ("contrib.dog", "DoG", "", ""),
    ("contrib.dowg", None, "", NO_RATE),
    ("contrib.dpsgd", None, "", "it needs a gradient for each sample"),
    ("contrib.galore", None, "", PROJECTION),
    ("contrib.madgrad", "MADGRAD", "", ""),
    ("contrib.mechanize", None, "", NO_RATE),
    ("contrib.momo, contrib.momo_adam", None, "", NEEDS_LOSS),
    (
        "contrib.muon",
        "Muon",
        'layout="in_out", bias_correction=True, eps=1e-8, eps_form="add", weight_decay=0.0',
        "for matrices; Optax's vectors take Adam's steps with Nesterov's momentum, here AdamW's: give them to "
        "``NAdam(momentum_decay=None)``, an optimizer of their own",
    ),
    ("contrib.prodigy", "Prodigy", "use_bias_correction=True", ""),
    ("contrib.sam", "SAM", "", "another interface with the same numbers"),
    (
        "contrib.schedule_free",
        None,
        "",
        "for these three only: `ScheduleFreeSGD`, `ScheduleFreeAdamW`, `ScheduleFreeRAdam`",
    ),
    ("contrib.schedule_free_adamw", "ScheduleFreeAdamW", "", "``eval()`` is ``schedule_free_eval_params``"),
    ("contrib.schedule_free_sgd", "ScheduleFreeSGD", "", "``eval()`` is ``schedule_free_eval_params``"),
    ("contrib.simplified_ademamix", None, "", VARIANT),
    (
        "contrib.sophia",
        "SophiaH",
        "betas=(0.965, 0.99), eps=1e-8, weight_decay=1e-4",
        "no exact match: Optax corrects the momentum's bias, and updates the Hessian after the step",
    ),
]

OPTAX_SCHEDULES = [
    ("constant_schedule(lr)", "schedules.constant(lr)", ""),
    ("cosine_decay_schedule(lr, N, alpha)", "schedules.cosine(lr, alpha * lr, N)", "without ``exponent``"),
    (
        "cosine_onecycle_schedule(N, max_lr)",
        "schedules.one_cycle(max_lr, N, momentum=None)",
        "Optax's phases end one step later",
    ),
    (
        "exponential_decay(lr, N, rate)",
        "schedules.exponential(lr, rate ** (1 / N))",
        "``staircase=True``: ``step(lr, N, gamma=rate)``",
    ),
    ("join_schedules([a, b], [N])", "schedules.join([a, b], [N])", ""),
    (
        "linear_onecycle_schedule(N, max_lr)",
        "schedules.one_cycle(max_lr, N, anneal='linear', three_phase=True, momentum=None)",
        "Optax is back at the first rate after ``pct_final``, here after twice ``pct_start``",
    ),
    ("linear_schedule(lr, end, N)", "schedules.linear(lr, end, N)", ""),
    ("piecewise_constant_schedule(lr, {30: 0.1, 80: 0.1})", "schedules.multi_step(lr, [30, 80], gamma=0.1)", ""),
    ("piecewise_interpolate_schedule", "schedules.join([a, b], [N])", "``linear`` or ``cosine`` for each piece"),
    ("polynomial_schedule(lr, end, power, N)", "schedules.polynomial(lr, N, power, end)", ""),
    ("sgdr_schedule", "schedules.cosine_restarts(lr, 0.0, T_0, T_mult)", "other pieces with ``join``"),
    ("warmup_constant_schedule(0.0, lr, W)", "schedules.warmup(schedules.constant(lr), W)", ""),
    ("warmup_cosine_decay_schedule(0.0, lr, W, N)", "schedules.warmup_cosine(lr, W, N)", ""),
    ("warmup_exponential_decay_schedule", "schedules.warmup(schedules.exponential(lr, 0.99), W)", ""),
    ("contrib.reduce_on_plateau()", "schedules.reduce_on_plateau(lr)", ""),
]

OPTAX_TRANSFORMS = [
    ("adaptive_grad_clip", "transforms.agc", "", ""),
    ("add_decayed_weights", "weight_decay= of an optimizer", "", ""),
    ("add_noise", "transforms.add_noise", "", ""),
    ("apply_every, MultiSteps", "transforms.accumulate", "", "the mean; for sums see :doc:`custom_loops`"),
    ("apply_if_finite, skip_not_finite", "transforms.apply_if_finite", "", "without a limit: ``nonfinite='skip'``"),
    ("centralize", "transforms.centralize", "layout='out_in'", "also `centralize_`"),
    ("chain", "Transformed", "", "clipping, scaling and decay are options of every optimizer"),
    ("clip", "transforms.clip", "", "also `clip_grad_value_`"),
    ("clip_by_block_rms", "transforms.clip_by_block_rms", "", ""),
    ("clip_by_global_norm", "transforms.clip_by_global_norm", "", "``max_grad_norm`` adds :math:`10^{-6}` to the norm"),
    ("ema, incremental_update", "EMA", "", ""),
    ("flatten", "pack", "", ""),
    ("freeze, masked, partition, set_to_zero", "groups, or None in the place of a gradient", "", "see :ref:`missing`"),
    ("inject_hyperparams", "param_groups of an optimizer", "", "see :doc:`structures`"),
    ("keep_params_nonnegative", None, "", "clip the parameters after a step"),
    ("lookahead", "Lookahead", "", ""),
    (
        "per_example_global_norm_clip, differentially_private_aggregate",
        None,
        "",
        "they need a gradient for each sample",
    ),
    ("scale, scale_by_schedule", "lr= of an optimizer", "", ""),
    ("scale_by_backtracking_linesearch, scale_by_zoom_linesearch", None, "", NEEDS_LOSS),
    ("scale_by_adam, scale_by_rms and so on", "the optimizers above", "", "their parts are not offered one by one"),
    ("scale_by_trust_ratio", "LARS", "lr=0.1", "or `LAMB`"),
    ("skip_large_updates", None, "", "compare `global_norm` of the gradients before the step"),
    ("trace", "SGD", "momentum=0.9", ""),
    ("zero_nans", "transforms.zero_nans", "", "``found_nan`` is an attribute of `Transformed`"),
]

PYTORCH_OPTIMIZER = [
    ("ADOPT", "ADOPT", "", "no exact match: its first step differs"),
    ("AdaBelief", "AdaBelief", "", ""),
    ("AdaBound", "AdaBound", "decoupled_weight_decay=True", ""),
    ("AdaDelta", "Adadelta", "", ""),
    (
        "AdaFactor",
        "AdafactorHF",
        "beta1=0.9",
        "the momentum is bfloat16 there, unless ``momentum_dtype`` says otherwise",
    ),
    ("AdaHessian", None, "", CURVATURE),
    ("AdaMax", "Adamax", "lr=0.001", ""),
    (
        "AdEMAMix",
        "AdEMAMix",
        "",
        "``t_alpha_beta3`` is ``alpha_warmup`` and ``beta3_warmup``; weight decay is L2 there by default",
    ),
    ("Adai", "Adai", "", "``weight_decouple`` is ``decoupled_weight_decay``"),
    ("Adam, AdamW, NAdam, RMSprop, SGD, LBFGS", "those of torch.optim", "", ""),
    (
        "AdamMini",
        "AdamMini",
        "lr=1.0, weight_decay=0.1",
        "``blocks`` of a group takes the place of names of parameters",
    ),
    ("AdamP", "AdamP", "", "eps is added before the correction of the bias there"),
    ("AdamS, AdamC, AdamG, AdaNorm, DiffGrad, EXAdam, FAdam", None, "", VARIANT),
    ("Adan", "Adan", "", ""),
    ("AggMo", "AggMo", "", ""),
    ("APOLLO, GaLore, Fira, Conda, Alice, RACS", None, "", PROJECTION),
    ("ASGD, AccSGD", None, "", "accelerated SGD; `ASGD` here is averaged SGD, as in PyTorch"),
    ("CAME", "CAME", "", ""),
    ("DAdaptAdam", "DAdaptAdam", "", ""),
    ("DAdaptSGD", "DAdaptSGD", "momentum=0.9", ""),
    ("DAdaptAdaGrad, DAdaptAdan, DAdaptLion", None, "", "`Prodigy` is the successor"),
    ("EmoNavi and the like", None, "", NEEDS_LOSS),
    ("FTRL", "FTRL", "initial_accumulator_value=0.0", "for an ``lr_power`` other than -0.5 it computes something else"),
    ("Fromage", "Fromage", "", ""),
    ("Grams", "Grams", "", ""),
    ("Kron", None, "", "PSGD has a preconditioner of its own, with random probes"),
    (
        "LARS",
        "LARS",
        "lr=0.001, eps=0.0, always_adapt=True",
        "arrays of one axis are neither adapted nor decayed there: `split_groups` makes such a group, with "
        f"``adapt=False, weight_decay=0.0``; {NOT_RECORDED}",
    ),
    (
        "Lamb",
        "LAMB",
        "weight_decay=0.0, always_adapt=True, bias_correction=False, max_grad_norm=None",
        "no exact match: the rate is divided by :math:`1 - \\beta_1^t` there, as by "
        "``lr=lambda step: lr / (1 - 0.9 ** (step + 1))``, and eps is added to the norm of the update; "
        "``pre_norm=True`` is ``max_grad_norm=1.0``",
    ),
    ("LaProp", "LaProp", "", ""),
    ("Lion", "Lion", "", "``cautious=True`` is ``'plus_one'``"),
    ("LOMO, AdaLOMO", None, "", "the step is taken inside the backward pass"),
    ("Lookahead", "Lookahead", "", ""),
    ("MADGRAD", "MADGRAD", "lr=0.001", ""),
    (
        "MARS",
        "MARS",
        "lr_1d=0.003, weight_decay_1d=0.1",
        "the first difference is that to 0 there, and eps is added before the correction of the bias; its form with "
        "Shampoo is missing here",
    ),
    (
        "Muon",
        "Muon",
        "lr=0.02, weight_decay=0.0, betas=(0.9, 0.95), adam_eps=1e-10",
        "no exact match: the iterations are in bfloat16 there. What is ``use_muon=False`` there, such as vectors, goes "
        "into a group with ``lr=3e-4, fallback=True``, its ``adamw_lr``; ``use_adjusted_lr=True`` is "
        "``adjust_lr_fn='match_rms_adamw'``",
    ),
    ("NovoGrad", "NovoGrad", "", "step 1 ignores ``grad_averaging`` there"),
    ("PAdam", "PAdam", "", ""),
    ("Prodigy", "Prodigy", "", "L2 decay does nothing there"),
    ("QHAdam", "QHAdam", "", ""),
    ("QHM", "QHM", "momentum=0.0, nu=1.0", ""),
    (
        "RAdam",
        "RAdam",
        "decoupled_weight_decay=True, unrectified='frozen'",
        "``n_sma_threshold`` is ``threshold``; ``degenerated_to_sgd=True`` is ``unrectified='sgd'``",
    ),
    ("Ranger", "Ranger", "layout='out_in'", "its first steps ascend there"),
    ("Ranger21", None, "", "a collection of eight methods with a schedule of its own"),
    ("SAM, GSAM, WSAM, BSAM", "SAM", "", "the first only"),
    ("SGDP", "SGDP", "", ""),
    ("SGDW", "SGD", "lr=1e-4", "its weight decay is decoupled, ours L2"),
    ("SM3", "SM3", "", ""),
    ("SOAP", "SOAP", "", "arrays of three axes and more are matrices here, and have a basis for each axis there"),
    ("ScheduleFreeAdamW", "ScheduleFreeAdamW", "", ""),
    ("ScheduleFreeRAdam", "ScheduleFreeRAdam", "", "in the phase without rectification its step is 1 and not the rate"),
    ("ScheduleFreeSGD", "ScheduleFreeSGD", "", ""),
    (
        "Shampoo",
        "Shampoo",
        "lr=0.001, momentum_form='feedback', before_first_root='wait'",
        "arrays of three axes and more are matrices here",
    ),
    (
        "ScalableShampoo",
        "Shampoo",
        "",
        "another form; ``grafting``, blocks and ``start_preconditioning_step`` are there",
    ),
    ("SignSGD", "Signum", "", "`SignSGD` here has no momentum by default"),
    ("SophiaH", "SophiaH", "", "``p`` is ``clip``; estimates are passed to ``update_hessian``"),
    ("StableAdamW", "StableAdamW", "", "without Kahan's summation"),
    ("Tiger", "Tiger", "", ""),
    (
        "Yogi",
        "Yogi",
        "",
        "``initial_accumulator`` is ``initial_accumulator_value``; its weight decay is decoupled by default",
    ),
    ("agc", "transforms.agc", "layout='out_in'", "except for arrays of three axes, of which it takes one there"),
    ("centralize_gradient", "centralize_", "layout='out_in'", ""),
]

PYTORCH_OPTIMIZER_SCHEDULES = [
    (
        "CosineAnnealingWarmupRestarts",
        "schedules.cosine_restarts(lr, 0.0, T_0, T_mult, decay=0.5)",
        "with ``warmup`` around it for the first cycle only",
    ),
    (
        "CosineScheduler, LinearScheduler, PolyScheduler",
        "schedules.warmup(schedules.cosine(lr, 0.0, N), W)",
        "or ``linear``, ``polynomial``",
    ),
    (
        "ProportionScheduler, REXScheduler, get_chebyshev_schedule",
        "lambda step: lr * f(step)",
        "any function of the step",
    ),
    (
        "get_wsd_schedule",
        "schedules.join([schedules.warmup(schedules.constant(lr), W), schedules.linear(lr, 0.0, N)], [T_0])",
        "",
    ),
    ("for Transformers", "schedules.inverse_sqrt(lr, W)", "the rate of the first paper, in other packages ``NoamLR``"),
    ("a factor for each group", "schedules.scale(a, 0.1)", ""),
]

#: Of the registry, those that none of these four packages has.
ONLY_HERE = {
    "NAG": "Nesterov's momentum with the gradient at the look-ahead point; closures",
    "Newton": "damped Newton steps with your Hessian",
    "AdamAtan2": "``adam_atan2_pytorch``",
    "SophiaG": "the authors' package",
}

TABLES = {
    "torch": (TORCH, "``torch.optim``"),
    "torch_schedules": (TORCH_SCHEDULES, "``torch.optim.lr_scheduler``"),
    "keras": (KERAS, "``keras.optimizers``"),
    "keras_schedules": (KERAS_SCHEDULES, "``keras.optimizers.schedules``"),
    "optax": (OPTAX, "``optax``"),
    "optax_schedules": (OPTAX_SCHEDULES, "``optax``"),
    "optax_transforms": (OPTAX_TRANSFORMS, "``optax``"),
    "pytorch_optimizer": (PYTORCH_OPTIMIZER, "``pytorch_optimizer``"),
    "pytorch_optimizer_schedules": (PYTORCH_OPTIMIZER_SCHEDULES, "``pytorch_optimizer``"),
}
