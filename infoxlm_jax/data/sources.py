"""The names that readers had before they got modules of their own."""

from infoxlm_jax.data.files import LANGUAGE as LANGUAGE
from infoxlm_jax.data.files import read_lines as read_lines
from infoxlm_jax.data.tables import read_table as read_table
from infoxlm_jax.data.tasks import import_tasks as import_tasks
from infoxlm_jax.data.tasks import read_task as read_task
