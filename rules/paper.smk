# Requires: the studies of the block `paper`: one an algorithm and seed, all of one dataset file.
# Makes: paper/{item}.csv and .md, of figures .png and .svg; {study}/library/whole/ and {study}/selection/pruning.csv.
# An item of which studies are missing is drawn from the others: --config 'paper={missing_studies: leave_out}'.
import json

from ensembleflow.planning.paper_plan import FIGURES, ITEMS, WHOLE_LIBRARY


wildcard_constraints:
    table="|".join(item for item in ITEMS if item not in FIGURES),
    figure="|".join(FIGURES),


localrules:
    paper,


rule paper:
    """Every table and figure of the paper, at the scale of the data given."""
    input:
        [PAPER.output(item, "md") for item in ITEMS],
        PAPER.output("numbers", "json"),


for item in ITEMS:

    rule:
        name:
            f"paper_{item}"
        input:
            PAPER.output(item, "md"),
        localrule: True


use rule rank_models as rank_whole_library with:
    output:
        models=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/models.csv",
    log:
        f"{LOGS}/{{study}}/rank_whole_library.log",
    params:
        library=canonical_json({"keep_fraction": 1, "metric": CONFIG.search.metric}),


use rule cache_predictions as cache_whole_library with:
    input:
        models=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/models.csv",
        trained=lambda wildcards: study_jobs(wildcards.study, "models/job-{job}"),
        dataset=DATASET,
    output:
        exported=directory(f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/exported"),
        predictions=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/predictions.h5",
    log:
        f"{LOGS}/{{study}}/cache_whole_library.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/cache_whole_library.tsv"


use rule measure_costs as measure_whole_library with:
    input:
        models=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/models.csv",
        exported=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/exported",
        predictions=ancient(f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/predictions.h5"),
        # Which say the engine.
        kept_costs=ancient(f"{RESULTS}/{{study}}/library/costs.csv"),
        dataset=DATASET,
    output:
        costs=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/costs.csv",
    log:
        f"{LOGS}/{{study}}/measure_whole_library.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/measure_whole_library.tsv"


use rule allocate_ensemble as simulate_allocation with:
    output:
        allocation=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/simulated-{{n}}.json",
        search=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/simulated-search-{{n}}.csv",
        profiles=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/simulated-profile-{{n}}.csv",
    log:
        f"{LOGS}/{{study}}/simulate_allocation/budget-{{budget}}-devices-{{n}}.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/simulate_allocation/budget-{{budget}}-devices-{{n}}.tsv"
    params:
        allocation=lambda wildcards: canonical_json(simulated_allocation(CONFIG, int(wildcards.n))),


rule study_pruning:
    """Select from the best fractions of the whole library: loss, error and time of each."""
    input:
        predictions=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/predictions.h5",
        costs=f"{RESULTS}/{{study}}/{WHOLE_LIBRARY}/costs.csv",
        code=code("study_pruning"),
    output:
        table=f"{RESULTS}/{{study}}/selection/pruning.csv",
    log:
        f"{LOGS}/{{study}}/study_pruning.log",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=CONFIG.resources.selection.mem_mb,
        runtime=CONFIG.resources.selection.runtime_minutes,
    params:
        study=canonical_json(
            {"weights": CONFIG.selection.cost_weights, "loss": CONFIG.selection.loss},
            keep_fractions=CONFIG.paper.keep_fractions,
            budget=CONFIG.paper.pruning_budget,
            rank_by=CONFIG.search.metric,
        ),
    script:
        "../workflow/scripts/study_pruning.py"


rule make_paper_table:
    """One of the paper's tables, or of its sections' results, with the paper's numbers beside ours."""
    input:
        sources=lambda wildcards: paper_sources(wildcards.table),
        other_items=lambda wildcards: [PAPER.output(item, "csv") for item in ITEMS[wildcards.table].items],
        code=lambda wildcards: code(wildcards.table),
    output:
        table=f"{RESULTS}/paper/{{table}}.csv",
        page=f"{RESULTS}/paper/{{table}}.md",
    log:
        f"{LOGS}/paper/{{table}}.log",
    conda:
        "../envs/paper.yaml"
    params:
        item=lambda wildcards: wildcards.table,
        run=canonical_json(PAPER),
    script:
        "../workflow/scripts/make_paper_item.py"


rule make_paper_figure:
    """One of the paper's figures, and the table that it draws."""
    input:
        sources=lambda wildcards: paper_sources(wildcards.figure),
        code=lambda wildcards: code(wildcards.figure),
    output:
        table=f"{RESULTS}/paper/{{figure}}.csv",
        page=f"{RESULTS}/paper/{{figure}}.md",
        png=f"{RESULTS}/paper/{{figure}}.png",
        svg=f"{RESULTS}/paper/{{figure}}.svg",
    log:
        f"{LOGS}/paper/{{figure}}.log",
    conda:
        "../envs/paper.yaml"
    params:
        item=lambda wildcards: wildcards.figure,
        run=canonical_json(PAPER),
    script:
        "../workflow/scripts/make_paper_item.py"


rule make_paper_numbers:
    """Every number of the items, under a name of its own: what the documentation quotes."""
    input:
        tables=[PAPER.output(item, "csv") for item in ITEMS],
        code=code("numbers"),
    output:
        numbers=PAPER.output("numbers", "json"),
    log:
        f"{LOGS}/paper/numbers.log",
    conda:
        "../envs/paper.yaml"
    params:
        item="numbers",
        run=canonical_json(PAPER),
    script:
        "../workflow/scripts/make_paper_item.py"


rule run_autokeras:
    """Auto-Keras on the same images, in an environment of its own; no item needs it, table 4 shows it once it is there."""
    input:
        dataset=DATASET,
        program=code("run_autokeras"),
    output:
        result=f"{RESULTS}/paper/autokeras.json",
    log:
        f"{LOGS}/paper/autokeras.log",
    benchmark:
        f"{BENCHMARKS}/paper/autokeras.tsv"
    conda:
        "../envs/autokeras.yaml"
    threads: whole_machine(CONFIG.resources.search.threads)
    resources:
        mem_mb=CONFIG.resources.search.mem_mb,
        runtime=CONFIG.resources.search.runtime_minutes,
    params:
        python=lambda wildcards: CONFIG.paper.autokeras_python,
        options=lambda wildcards, threads: json.dumps(
            {
                "max_trials": CONFIG.paper.autokeras_trials,
                "epochs": CONFIG.search.max_epochs,
                "seed": CONFIG.paper.seeds[0],
                "threads": threads,
            }
        ),
    shell:
        "{params.python:q} -P {input.program} {input.dataset:q} {output.result:q} {params.options:q} > {log} 2>&1"
