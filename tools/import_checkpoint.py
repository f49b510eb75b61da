"""The command infoxlm-import-checkpoint, for use from the repository."""

from infoxlm_jax.cli.import_checkpoint import main

raise SystemExit(main())
