# Requires: the tables of the other stages.
# Makes: tables/*.csv, figures/*.png and *.svg, run_config.yaml, provenance.json, report.html.
# Snakemake's own report of the figures, with run times: `snakemake --report results/snakemake-report.html`.


rule record_run:
    """Write the merged config and what the run was made with beside the results, whenever they are new."""
    input:
        budgets=f"{RESULTS}/tables/budgets.csv",
    output:
        config=f"{RESULTS}/run_config.yaml",
        provenance=f"{RESULTS}/provenance.json",
    log:
        f"{LOGS}/record_run.log",
    conda:
        "../envs/analysis.yaml"
    params:
        # Snakemake keeps parameters in its metadata and its report.
        config=lambda wildcards: canonical_json(
            without_passwords(CONFIG.model_dump(mode="json", exclude={"resources", "paper"}))
        ),
    script:
        "../workflow/scripts/record_run.py"


rule plot_learning_curves:
    """Draw every trial's validation metric by epoch, bracket and rung."""
    input:
        trials=f"{RESULTS}/{STUDY}/search/trials.csv",
        epochs=f"{RESULTS}/{STUDY}/search/epochs.csv",
        code=code("plot_learning_curves"),
    output:
        table=f"{RESULTS}/tables/learning_curves.csv",
        png=f"{RESULTS}/figures/learning_curves.png",
        svg=report(
            f"{RESULTS}/figures/learning_curves.svg",
            caption="../workflow/report/learning_curves.rst",
            category="1 Search",
            labels={"figure": "Learning curves by rung"},
        ),
    log:
        f"{LOGS}/plot_learning_curves.log",
    conda:
        "../envs/analysis.yaml"
    params:
        report=canonical_json(CONFIG.report),
        search=canonical_json(
            CONFIG.search.model_dump(mode="json", include={"metric", "max_epochs", "min_epochs", "reduction_factor"})
        ),
    script:
        "../workflow/scripts/plot_learning_curves.py"


rule plot_library_distribution:
    """Draw all models' errors and costs, the kept ones marked."""
    input:
        models=f"{RESULTS}/{STUDY}/library/models.csv",
        costs=f"{RESULTS}/{STUDY}/library/costs.csv",
        code=code("plot_library_distribution"),
    output:
        table=f"{RESULTS}/tables/library_distribution.csv",
        png=f"{RESULTS}/figures/library_distribution.png",
        svg=report(
            f"{RESULTS}/figures/library_distribution.svg",
            caption="../workflow/report/library_distribution.rst",
            category="2 Library",
            labels={"figure": "Distribution of the library"},
        ),
    log:
        f"{LOGS}/plot_library_distribution.log",
    conda:
        "../envs/analysis.yaml"
    params:
        report=canonical_json(CONFIG.report, metric=CONFIG.search.metric),
    script:
        "../workflow/scripts/plot_library_distribution.py"


rule plot_error_against_cost:
    """Draw SMOBF's and the baseline's ensembles, error against cost, with the Pareto front."""
    input:
        ensembles=f"{RESULTS}/{STUDY}/selection/ensembles.csv",
        pareto=f"{RESULTS}/{STUDY}/selection/pareto.csv",
        code=code("plot_error_against_cost"),
    output:
        table=f"{RESULTS}/tables/error_against_cost.csv",
        png=f"{RESULTS}/figures/error_against_cost.png",
        svg=report(
            f"{RESULTS}/figures/error_against_cost.svg",
            caption="../workflow/report/error_against_cost.rst",
            category="3 Selection",
            labels={"figure": "Error against cost"},
        ),
    log:
        f"{LOGS}/plot_error_against_cost.log",
    conda:
        "../envs/analysis.yaml"
    params:
        report=canonical_json(
            CONFIG.report,
            loss=CONFIG.selection.loss,
            n_images=CONFIG.library.cost.n_images,
        ),
    script:
        "../workflow/scripts/plot_error_against_cost.py"


rule plot_selection_fronts:
    """Draw every method's front, error against cost, SMOBF beside what others select with."""
    input:
        fronts=f"{RESULTS}/{STUDY}/selection/fronts.csv",
        comparison=f"{RESULTS}/{STUDY}/selection/comparison.csv",
        code=code("plot_selection_fronts"),
    output:
        table=f"{RESULTS}/tables/selection_fronts.csv",
        png=f"{RESULTS}/figures/selection_fronts.png",
        svg=report(
            f"{RESULTS}/figures/selection_fronts.svg",
            caption="../workflow/report/selection_fronts.rst",
            category="3 Selection",
            labels={"figure": "Fronts of the methods"},
        ),
    log:
        f"{LOGS}/plot_selection_fronts.log",
    conda:
        "../envs/analysis.yaml"
    params:
        report=canonical_json(
            CONFIG.report,
            loss=CONFIG.selection.loss,
            n_images=CONFIG.library.cost.n_images,
        ),
    script:
        "../workflow/scripts/plot_selection_fronts.py"


rule plot_allocation:
    """Draw the allocation search of every budget and where its members ended up."""
    input:
        allocations=expand(
            f"{RESULTS}/{STUDY}/allocation/budget-{{budget}}/devices-{{n}}.json",
            budget=BUDGETS,
            n=CONFIG.allocation.device_counts,
        ),
        searches=expand(
            f"{RESULTS}/{STUDY}/allocation/budget-{{budget}}/search-{{n}}.csv",
            budget=BUDGETS,
            n=CONFIG.allocation.device_counts,
        ),
        code=code("plot_allocation"),
    output:
        table=f"{RESULTS}/tables/allocation.csv",
        members=f"{RESULTS}/tables/allocation_members.csv",
        png=f"{RESULTS}/figures/allocation.png",
        svg=report(
            f"{RESULTS}/figures/allocation.svg",
            caption="../workflow/report/allocation.rst",
            category="4 Allocation",
            labels={"figure": "Allocation"},
        ),
    log:
        f"{LOGS}/plot_allocation.log",
    conda:
        "../envs/analysis.yaml"
    params:
        report=canonical_json(CONFIG.report),
    script:
        "../workflow/scripts/plot_allocation.py"


rule tabulate_budgets:
    """The result in one table: the best single model, the baseline, then one row per budget."""
    input:
        ensembles=f"{RESULTS}/{STUDY}/selection/ensembles.csv",
        pareto=f"{RESULTS}/{STUDY}/selection/pareto.csv",
        selections=expand(f"{RESULTS}/{STUDY}/selection/budget-{{budget}}.json", budget=BUDGETS),
        allocations=expand(
            f"{RESULTS}/{STUDY}/allocation/budget-{{budget}}/devices-{N_DEVICES}.json",
            budget=BUDGETS,
        ),
        models=f"{RESULTS}/{STUDY}/library/models.csv",
        costs=f"{RESULTS}/{STUDY}/library/costs.csv",
        predictions=f"{RESULTS}/{STUDY}/library/predictions.h5",
        baseline=f"{RESULTS}/{STUDY}/library/baseline.json",
        answers=f"{RESULTS}/{STUDY}/library/baseline.csv",
        code=code("tabulate_budgets"),
    output:
        table=f"{RESULTS}/tables/budgets.csv",
        html=report(
            f"{RESULTS}/tables/budgets.html",
            caption="../workflow/report/budgets.rst",
            category="5 Result",
            labels={"figure": "Budgets"},
        ),
    log:
        f"{LOGS}/tabulate_budgets.log",
    conda:
        "../envs/analysis.yaml"
    params:
        metric=CONFIG.search.metric,
    script:
        "../workflow/scripts/tabulate_budgets.py"


rule tabulate_mistakes:
    """What each budget's ensemble gets wrong: class by class, pair by pair, and the surest wrong answers."""
    input:
        predictions=f"{RESULTS}/{STUDY}/library/predictions.h5",
        selections=expand(f"{RESULTS}/{STUDY}/selection/budget-{{budget}}.json", budget=BUDGETS),
        code=code("tabulate_mistakes"),
    output:
        classes=f"{RESULTS}/tables/classes.csv",
        confusion=f"{RESULTS}/tables/confusion.csv",
        mistakes=f"{RESULTS}/tables/mistakes.csv",
    log:
        f"{LOGS}/tabulate_mistakes.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow/scripts/tabulate_mistakes.py"


rule make_report:
    """One page that opens offline: the decision first, then search, library, selection, allocation, provenance."""
    input:
        rules.search.input,
        models=f"{RESULTS}/{STUDY}/library/models.csv",
        costs=f"{RESULTS}/{STUDY}/library/costs.csv",
        predictions=f"{RESULTS}/{STUDY}/library/predictions.h5",
        selection=rules.selection.input,
        allocations=rules.plot_allocation.input.allocations,
        searches=rules.plot_allocation.input.searches,
        bundles=rules.bundles.input,
        run=rules.record_run.output,
        mistakes=rules.tabulate_mistakes.output,
        baseline=f"{RESULTS}/{STUDY}/library/baseline.json",
        dataset=DATASET,
        code=code("make_report"),
    output:
        page=f"{RESULTS}/report.html",
    log:
        f"{LOGS}/make_report.log",
    conda:
        "../envs/analysis.yaml"
    params:
        study=STUDY,
    script:
        "../workflow/scripts/make_report.py"
