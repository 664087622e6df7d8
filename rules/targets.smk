# Makes nothing itself: the stages' names to ask for on the command line.
localrules:
    search,
    library,
    selection,
    allocation,
    bundles,


rule search:
    """Every trial trained, the tables of trials, epochs and runs, and where the time went."""
    input:
        f"{RESULTS}/{STUDY}/search/trials.csv",
        f"{RESULTS}/{STUDY}/search/epochs.csv",
        f"{RESULTS}/{STUDY}/search/runs.csv",
        f"{RESULTS}/{STUDY}/search/accounting.json",


rule library:
    """The models ranked, the kept ones' predictions cached and costs measured, a baseline beside them."""
    input:
        f"{RESULTS}/{STUDY}/library/models.csv",
        f"{RESULTS}/{STUDY}/library/exported",
        f"{RESULTS}/{STUDY}/library/predictions.h5",
        f"{RESULTS}/{STUDY}/library/costs.csv",
        f"{RESULTS}/{STUDY}/library/baseline.json",


rule selection:
    """An ensemble for every budget."""
    input:
        expand(f"{RESULTS}/{STUDY}/selection/budget-{{budget}}.json", budget=BUDGETS),
        expand(CASCADE, study=STUDY, budget=BUDGETS),
        f"{RESULTS}/{STUDY}/selection/ensembles.csv",
        f"{RESULTS}/{STUDY}/selection/pareto.csv",
        f"{RESULTS}/{STUDY}/selection/trace.csv",
        f"{RESULTS}/{STUDY}/selection/comparison.csv",
        f"{RESULTS}/{STUDY}/selection/fronts.csv",


rule allocation:
    """Every budget's ensemble placed on the devices."""
    input:
        expand(
            f"{RESULTS}/{STUDY}/allocation/budget-{{budget}}/devices-{{n}}.json",
            budget=BUDGETS,
            n=CONFIG.allocation.device_counts,
        ),


rule bundles:
    """A deployable bundle for every budget; none where allocations are only simulated."""
    input:
        expand(
            f"{RESULTS}/{STUDY}/bundles/budget-{{budget}}",
            budget=[] if CONFIG.allocation.simulated else BUDGETS,
        ),
