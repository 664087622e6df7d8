# Makes nothing itself: the stages' names to ask for on the command line.
localrules:
    search,
    library,
    selection,
    allocation,
    bundles,


rule search:
    """Every trial trained, and the tables of trials and epochs."""
    input:
        f"{RESULTS}/{STUDY}/search/trials.csv",
        f"{RESULTS}/{STUDY}/search/epochs.csv",


rule library:
    """The models ranked, the kept ones' predictions cached and costs measured."""
    input:
        f"{RESULTS}/{STUDY}/library/models.csv",
        f"{RESULTS}/{STUDY}/library/exported",
        f"{RESULTS}/{STUDY}/library/predictions.h5",
        f"{RESULTS}/{STUDY}/library/costs.csv",


rule selection:
    """An ensemble for every budget."""
    input:
        expand(f"{RESULTS}/{STUDY}/selection/budget-{{budget}}.json", budget=BUDGETS),
        f"{RESULTS}/{STUDY}/selection/ensembles.csv",
        f"{RESULTS}/{STUDY}/selection/pareto.csv",
        f"{RESULTS}/{STUDY}/selection/trace.csv",


rule allocation:
    """Every budget's ensemble placed on the devices."""
    input:
        expand(
            f"{RESULTS}/{STUDY}/allocation/budget-{{budget}}/devices-{{n}}.json",
            budget=BUDGETS,
            n=CONFIG.allocation.device_counts,
        ),


rule bundles:
    """A deployable bundle for every budget."""
    input:
        expand(f"{RESULTS}/{STUDY}/bundles/budget-{{budget}}", budget=BUDGETS),
