"""The command infoxlm-checkpoint, for use from the repository."""

from infoxlm_jax.cli.checkpoint import main

raise SystemExit(main())
