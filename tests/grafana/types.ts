// The type of a dashboard as its JSON. Enums stand there as their values. The published types of variables and annotations lack keys
// that Grafana itself writes, so those two are left open.
import type { Dashboard, FieldConfig, FieldConfigSource, Panel, GraphFieldConfig } from '@grafana/schema';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as BarGauge } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type { Options as TimeSeries } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type { Options as Table, FieldConfig as TableField } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';

type Loose<T> = T extends string ? (string extends T ? string : `${T}`) : T extends number ? number
  : T extends boolean ? boolean : T extends readonly (infer U)[] ? Loose<U>[]
  : T extends object ? { [K in keyof T]: Loose<T[K]> } : T;
type Query = { refId: string, expr: string, legendFormat?: string, datasource?: Panel['datasource'] } & (
  { instant: true, range: false, format?: 'table' } | { instant: false, range: true });
type Row = { type: 'row', id: number, title: string, collapsed: boolean, panels: never[], gridPos: Panel['gridPos'] };
type Of<Kind extends string, Options, Custom = {}> =
  Loose<Omit<Panel, 'type' | 'options' | 'targets' | 'fieldConfig'>> & {
    type: Kind; options?: Loose<Partial<Options>>; targets: Query[];
    fieldConfig: Loose<Omit<FieldConfigSource, 'defaults'>> & { defaults: Loose<Omit<FieldConfig, 'custom'>> & { custom?: Loose<Partial<Custom>> } };
  };
type Board = Loose<Omit<Dashboard, 'panels' | 'templating' | 'annotations'>> & {
  templating: unknown; annotations: unknown;
  panels: (Row | Of<'stat', Stat> | Of<'bargauge', BarGauge> | Of<'timeseries', TimeSeries, GraphFieldConfig> | Of<'table', Table, TableField>)[];
};
