# Requires: {study}/library/predictions.h5 and costs.csv.
# Makes: {study}/selection/budget-{budget}.json, ensembles.csv, pareto.csv, trace.csv.


rule select_ensemble:
    """Choose the members for one budget: SMOBF, beside the forward greedy baseline."""
    input:
        predictions=f"{RESULTS}/{{study}}/library/predictions.h5",
        costs=f"{RESULTS}/{{study}}/library/costs.csv",
        code=stage_code("selection", beside=["models/metrics.py", "library/predictions.py"]),
    output:
        ensemble=f"{RESULTS}/{{study}}/selection/budget-{{budget}}.json",
    log:
        f"{LOGS}/{{study}}/select_ensemble/budget-{{budget}}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        selection=canonical_json(CONFIG.selection.model_dump(mode="json", exclude={"budgets"})),
    script:
        "../workflow/scripts/select_ensemble.py"


rule collect_ensembles:
    """Gather all budgets' ensembles, their Pareto front and the selection's steps."""
    input:
        ensembles=expand(f"{RESULTS}/{{{{study}}}}/selection/budget-{{budget}}.json", budget=BUDGETS),
        code=stage_code("selection", beside=["models/metrics.py", "library/predictions.py"]),
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
