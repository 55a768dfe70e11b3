"""A wandb server on this machine's loopback, for the real SDK to talk to: wandb has none that can be installed.

It keeps all that the SDK sends, each upsert and each line with its writer and time, and misbehaves on request.
What it does is, of the hosted server:

=================================================== ==================================================================
seen (sent or needed by wandb 0.19.10 and 0.31.0)
=================================================== ==================================================================
GraphQL at `/graphql`, basic authentication          every SDK
file stream at `/files/ENTITY/PROJECT/RUN/file_stream` JSON: `files`, `uploaded`, `complete`, `exitcode`; gzip or not
files are PUT to the addresses of `createRunFiles`   tables, media, metadata, console
a shared writer names itself by a client id          headers `X-Wandb-Async-Client-Id` (stream), `X-Wandb-Client-Id`
definitions are in `config._wandb.value.m`           `1` name, `2` pattern, `5` place of the axis from 1, `6`, `7`
0.31.0's shared writers count `_step` themselves     each from 0, in lines and summary
401, 403, 404, 409 end the SDK's file stream         others it tries again
=================================================== ==================================================================

=================================================== ==================================================================
documented (the SDK's public API: `wandb/apis/public/runs.py`; docs.wandb.ai)
=================================================== ==================================================================
fields of a run                                      `state`, `config`, `summaryMetrics`, `historyLineCount`, ...
resuming asks for `bucket(... missingOk: true)`      a run is there if `wandbConfig` has `t`
`upsertBucket` with an `id` sets `summaryMetrics`    `wandb/apis/public/summary.py`
=================================================== ==================================================================

=================================================== ==================================================================
assumed (nobody could measure the hosted one)
=================================================== ==================================================================
an upsert's config replaces or merges                both, by `Policy`; Trinity-RFT#590 reports replacement
lines of several writers of one run                  all kept; `_step` counted anew by the server in order of arrival
a stream's lines that are sent again                 known by client id and offset, and kept once
summaries of several writers                         merged by key; the later value stays
names, tags, notes of a later upsert                 overwrite what was there, where they are given
what was just taken                                  is in the next answer, or seconds later: `State.late`
=================================================== ==================================================================
"""

from wandb_emulator.faults import Fault, Faults
from wandb_emulator.server import WandbServer, environment
from wandb_emulator.stored import HistoryLine, Policy, StoredRun, Upsert

__all__ = ["Fault", "Faults", "HistoryLine", "Policy", "StoredRun", "Upsert", "WandbServer", "environment"]
