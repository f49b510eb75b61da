"""The command infoxlm-train-tokenizer, for use from the repository."""

from infoxlm_jax.cli.train_tokenizer import main

raise SystemExit(main())
