"""Run in lm-evaluation-harness's environment: its filters and its metric on given responses.

Arguments: the folder of task files. Standard input: JSON lines with `task`, `doc` and `response`; standard output: per
line what each filter extracts and whether it is right.
"""

import json
import sys
from collections import defaultdict

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager


def main() -> None:
    manager = TaskManager(include_path=sys.argv[1])
    asked = [json.loads(line) for line in sys.stdin]
    by_task = defaultdict(list)
    for place, row in enumerate(asked):
        by_task[row["task"]].append(place)
    verdicts: dict[int, dict[str, list]] = {}
    for name, places in by_task.items():
        task = manager.load([name])["tasks"][name]
        task._instances = [
            Instance("generate_until", asked[i]["doc"], ("", {}), 0, (name, i, 1), [asked[i]["response"]])
            for i in places
        ]
        task.apply_filters()
        for instance in task._instances:
            verdicts[instance.doc_id] = {
                key: [found, float(task.process_results(instance.doc, [found])["exact_match"])]
                for key, found in instance.filtered_resps.items()
            }
    for place in range(len(asked)):
        print(json.dumps(verdicts[place]))


if __name__ == "__main__":
    main()
