# Requires: {study}/library/predictions.h5 and costs.csv.
# Makes: {study}/selection/budget-{budget}.json, cascade-{budget}.json, ensembles.csv, pareto.csv, trace.csv, comparison.csv, fronts.csv.


rule select_ensemble:
    """Choose the members for one budget: SMOBF, beside the forward greedy baseline."""
    input:
        predictions=f"{RESULTS}/{{study}}/library/predictions.h5",
        costs=f"{RESULTS}/{{study}}/library/costs.csv",
        code=code("select_ensemble"),
    output:
        ensemble=f"{RESULTS}/{{study}}/selection/budget-{{budget}}.json",
    log:
        f"{LOGS}/{{study}}/select_ensemble/budget-{{budget}}.log",
        # Dask's performance report; empty with threads.
        dask=f"{LOGS}/{{study}}/select_ensemble/budget-{{budget}}.dask.html",
    conda:
        "../envs/training-gpu.yaml" if CONFIG.resources.selection.gpus else "../envs/analysis.yaml"
    threads: CONFIG.resources.selection.threads
    resources:
        mem_mb=CONFIG.resources.selection.mem_mb,
        runtime=CONFIG.resources.selection.runtime_minutes,
        gpu=CONFIG.resources.selection.gpus,
        nodes=CONFIG.resources.selection.nodes,
        tasks=CONFIG.resources.selection.nodes,
    params:
        selection=canonical_json(
            CONFIG.selection.model_dump(mode="json", exclude={"budgets", "branch_and_bound_nodes", "cascade"})
        ),
    script:
        "../workflow/scripts/select_ensemble.py"


rule select_cascade:
    """Find at which stage an image of one budget's ensemble may stop."""
    input:
        ensemble=f"{RESULTS}/{{study}}/selection/budget-{{budget}}.json",
        predictions=f"{RESULTS}/{{study}}/library/predictions.h5",
        costs=f"{RESULTS}/{{study}}/library/costs.csv",
        code=code("select_cascade"),
    output:
        cascade=f"{RESULTS}/{{study}}/selection/cascade-{{budget}}.json",
    log:
        f"{LOGS}/{{study}}/select_cascade/budget-{{budget}}.log",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=CONFIG.resources.selection.mem_mb,
        runtime=CONFIG.resources.selection.runtime_minutes,
    params:
        cascade=canonical_json(CONFIG.selection.cascade),
    script:
        "../workflow/scripts/select_cascade.py"


rule collect_ensembles:
    """Gather all budgets' ensembles, their Pareto front and the selection's steps."""
    input:
        ensembles=expand(f"{RESULTS}/{{{{study}}}}/selection/budget-{{budget}}.json", budget=BUDGETS),
        code=code("collect_ensembles"),
    output:
        ensembles=f"{RESULTS}/{{study}}/selection/ensembles.csv",
        pareto=f"{RESULTS}/{{study}}/selection/pareto.csv",
        trace=f"{RESULTS}/{{study}}/selection/trace.csv",
    log:
        f"{LOGS}/{{study}}/collect_ensembles.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow/scripts/collect_ensembles.py"


rule compare_methods:
    """Hold SMOBF against other methods and ways to combine members, and draw up every method's front."""
    input:
        predictions=f"{RESULTS}/{{study}}/library/predictions.h5",
        costs=f"{RESULTS}/{{study}}/library/costs.csv",
        ensembles=expand(f"{RESULTS}/{{{{study}}}}/selection/budget-{{budget}}.json", budget=BUDGETS),
        code=code("compare_methods"),
    output:
        comparison=f"{RESULTS}/{{study}}/selection/comparison.csv",
        fronts=f"{RESULTS}/{{study}}/selection/fronts.csv",
    log:
        f"{LOGS}/{{study}}/compare_methods.log",
    conda:
        "../envs/training-gpu.yaml" if CONFIG.resources.selection.gpus else "../envs/analysis.yaml"
    threads: CONFIG.resources.selection.threads
    resources:
        mem_mb=CONFIG.resources.selection.mem_mb,
        runtime=CONFIG.resources.selection.runtime_minutes,
        gpu=CONFIG.resources.selection.gpus,
    params:
        selection=canonical_json(CONFIG.selection.model_dump(mode="json", include={"loss", "branch_and_bound_nodes"})),
    script:
        "../workflow/scripts/compare_methods.py"
